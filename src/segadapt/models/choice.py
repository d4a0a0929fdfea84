"""A choice of a network, as a recipe has it: a name that is registered, and options.

    network: deeplab_vgg16
    network: {name: deeplab_vgg16, aspp: published}

Options are those of the network's class (`Segmenter.Options`). A choice has one plain form, which recipes and
fingerprints keep: without options that have their defaults, and the bare name where nothing is left.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import ValidationError

from segadapt.errors import UsageError, nearest
from segadapt.models.segmenter import NetworkFactory, NetworkOptions, Segmenter
from segadapt.plugin_loading import known

NETWORKS: dict[str, type[Segmenter]] = {}
"""The networks by name; `segadapt.models.networks` fills in those that ship."""

Choice = str | Mapping[str, Any]
"""A name, or a mapping of `name` and options."""
PlainChoice = str | dict[str, Any]
"""The same in its one plain form."""


def register_network(name: str, network: type[Segmenter]) -> None:
    """Make a network of one's own known under `name`, for recipes and saved models.

    It must be a subclass of `Segmenter` that sets `pixels` and `stride` and is made as `network(classes, attention,
    options)`. Raises ValueError for anything else, and for a taken name.
    """
    if not (isinstance(network, type) and issubclass(network, Segmenter)):
        raise ValueError(f"{network!r} is not a subclass of segadapt.models.segmenter.Segmenter")
    if lacks := [fact for fact in ("pixels", "stride") if not hasattr(network, fact)]:
        raise ValueError(f"{network.__name__} does not set `{'` and `'.join(lacks)}`")
    if "name" in network.Options.model_fields:
        raise ValueError(f"{network.__name__} has an option `name`: recipes name the network so")
    if not name.isidentifier():
        raise ValueError(f"{name!r} cannot be a network's name: use letters, digits and _")
    before = NETWORKS.get(name)
    # The same class may be defined anew, in a notebook.
    if before is not None and (before.__module__, before.__qualname__) != (network.__module__, network.__qualname__):
        raise ValueError(f"a network named {name!r} already exists")
    NETWORKS[name] = network


def build(choice: Choice, *, classes: int, attention: bool = False) -> Segmenter:
    """A fresh network. Raises UsageError for an unknown name and for options that it does not have."""
    network, options = chosen(choice)
    return cast(NetworkFactory, network)(classes, attention, options)


def name_of(choice: Choice) -> str:
    """The name in a choice."""
    return choice if isinstance(choice, str) else str(choice.get("name"))


def chosen(choice: Choice) -> tuple[type[Segmenter], NetworkOptions]:
    """The network's class, and its options. Raises UsageError for an unknown name and for other options."""
    if not isinstance(choice, (str, Mapping)):
        raise UsageError(
            f"{choice!r:.60} is not a network", where="network", remedy="Give a name, or {name: NAME, OPTION: VALUE}."
        )
    if not isinstance(choice, str) and not isinstance(choice.get("name"), str):
        raise UsageError(
            "a network with options needs its name", where="network", remedy="Write {name: NAME, OPTION: VALUE}."
        )
    name = name_of(choice)
    if name not in NETWORKS:
        raise UsageError(f"unknown network '{name:.60}'", where="network", remedy=known(name, list(NETWORKS)))
    given = {} if isinstance(choice, str) else {key: value for key, value in choice.items() if key != "name"}
    network = NETWORKS[name]
    try:
        return network, network.Options.model_validate(given)
    except ValidationError as error:
        raise _wrong_option(name, network.Options, error) from None


def classes_of(choice: Choice) -> Iterator[type[Segmenter]]:
    """The network's class and those of the networks that it is made of. Raises as `chosen` does."""
    network, options = chosen(choice)
    yield network
    for inner in options.inner_networks():
        yield from classes_of(inner)


def plain(choice: Choice) -> PlainChoice:
    """A choice in its one plain form. Raises as `chosen` does."""
    changed = chosen(choice)[1].model_dump(mode="json", exclude_defaults=True)
    return {"name": name_of(choice), **changed} if changed else name_of(choice)


def with_option(choice: Choice, option: str, value: object) -> PlainChoice:
    """The choice with one option set, in its plain form. Raises UsageError for a network that has no such option."""
    network, options = chosen(choice)
    if option not in network.Options.model_fields:
        raise UsageError(
            f"{name_of(choice)} has no option `{option}`", where="network", remedy=_options_in_words(network.Options)
        )
    return plain({"name": name_of(choice), **options.model_dump(mode="json"), option: value})


def _wrong_option(name: str, kind: type[NetworkOptions], error: ValidationError) -> UsageError:
    """The first finding of pydantic, as an error of the choice."""
    findings = error.errors(include_url=False)
    finding, key = findings[0], str((*findings[0]["loc"], "")[0])
    if finding["type"] == "extra_forbidden":
        remedy = nearest(key, list(kind.model_fields)) if kind.model_fields else _options_in_words(kind)
        return UsageError(f"{name} has no option `{key}`", where="network", remedy=remedy)
    # An option that may be of several types has one finding for each.
    same = [one["msg"] for one in findings if one["loc"][:1] == finding["loc"][:1]]
    what = ", or ".join(msg.removeprefix("Value error, ").replace("Input should", "it must", 1) for msg in same)
    field = kind.model_fields.get(key)
    remedy = f"`{key}` is: {field.description}." if field is not None and field.description else "Change it."
    return UsageError(
        f"option `{key}` of {name} is {finding.get('input')!r:.60}: {what}", where="network", remedy=remedy
    )


def _options_in_words(kind: type[NetworkOptions]) -> str:
    return f"It has {', '.join(f'`{key}`' for key in kind.model_fields)}." if kind.model_fields else "It has none."
