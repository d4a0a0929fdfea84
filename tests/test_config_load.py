"""Recipes: diffs over defaults, overrides, and errors that name the key, the place and the nearest right word."""

from pathlib import Path

import pytest
import yaml

from segadapt.config.load import load_recipe
from segadapt.config.recipe_files import shipped_recipes
from segadapt.config.resolved import as_yaml
from segadapt.data.label_spaces import load_label_space
from segadapt.errors import UsageError, UsageErrors
from segadapt.methods.sean import SeanSettings
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.quirks import QUIRKS
from tiny_runs import tree, write_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    sean = {"method": "sean", "official": True, "quirks": {"aspp": False}}
    return write_recipe(tmp_path / "mine.yaml", tree(tmp_path, sean=sean))


def test_a_resolved_recipe_hides_nothing_and_reads_back_as_itself(recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(str(recipe), ["seed=3", "stages.sean.lr=1e-3"])
    content = yaml.safe_load(as_yaml(loaded))
    assert content["seed"] == 3 and content["stages"]["sean"]["lr"] == 1e-3
    quirks = content["stages"]["sean"]["quirks"]
    assert set(quirks) == set(SeanSettings.known_quirks) <= set(QUIRKS)
    assert quirks["aspp"] is False and quirks["target_split"] is True
    assert load_recipe(str(write_recipe(tmp_path / "again.yaml", content)), []) == loaded


def test_a_base_lies_below_and_a_null_stage_is_left_out(recipe: Path, tmp_path: Path) -> None:
    above = {"base": "mine.yaml", "stages": {"sean": {"lr": 0.5}, "plain": {"method": "source_only", "steps": 1}}}
    loaded = load_recipe(str(write_recipe(tmp_path / "above.yaml", above)), [])
    sean = loaded.stages["sean"]
    assert isinstance(sean, SeanSettings) and sean.lr == 0.5 and sean.steps == 4
    assert list(load_recipe(str(tmp_path / "above.yaml"), ["stages.sean=null"]).stages) == ["plain"]


def test_an_override_of_one_stage_changes_no_other_that_an_alias_wrote_alike() -> None:
    """`<<: *row` gives stages one `augment`, and so does a plain alias of it."""
    loaded = load_recipe("labelmefacade_camvid", ["stages.sean.augment.hue=0.3"], keep_open=True)
    hues = {name: stage.augment.hue for name, stage in loaded.stages.items() if isinstance(stage, SegmenterSettings)}
    assert hues == dict.fromkeys(hues, 0.05) | {"sean": 0.3}


@pytest.mark.parametrize("name", list(shipped_recipes()))
def test_shipped_recipes_only_lack_what_a_user_must_say(name: str) -> None:
    with pytest.raises(UsageError) as failure:
        load_recipe(name, [])
    errors = failure.value.errors if isinstance(failure.value, UsageErrors) else [failure.value]
    assert all("must be given" in str(error) for error in errors)
    given = [str(error).split(": ")[1].split(" ")[0] for error in errors]
    loaded = load_recipe(name, [f"{key}=here" for key in given])
    official = name.endswith("official")
    for stage in loaded.stages.values():
        if isinstance(stage, TrainingSettings):
            # The published SYNTHIA programs lack two quirks of the GTA5 ones.
            gta5_only = {"d2_head1", "bn_until_first_eval"} if "synthia" in name else set()
            assert all(on is (official and quirk not in gta5_only) for quirk, on in stage.quirks.items())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.sean.learning_rate=1", "unknown key 'stages.sean.learning_rate'"),
        ("stages.sean.bacth=1", "Did you mean 'batch'?"),
        ("data.sorce.root=x", "Did you mean 'source'?"),
        ("stages.sena.lr=1", "no stage 'sena'"),
        ("stages.sean.lr=fast", "'stages.sean.lr' is 'fast'"),
        ("stages.sean.ema=1.5", "less than 1"),
        ("stages.sean.steps=null", "exactly one of `steps` and `epochs`"),
        ("stages.sean.method=seam", "Did you mean 'sean'?"),
        ("stages.sean.quirks.foo=true", "no such quirk"),
        ("stages.sean.accumulate=3", "cannot be split into 3 equal micro-batches"),
        ("lr", "is not an override"),
        ('stages.sean.size=["???", 40]', "stages.sean.size must be given"),
        ("stages.sean.size=[???, 40]", "a ? between { } or [ ] needs quotes"),
        ("stages.sean.size=" + "[" * 5000, "more than 32 levels"),
        ("seed=!!timestamp x", "!!timestamp is not plain data"),
        ("seed=on", "'seed' is True: it must be a number"),
        ("stages.sean.lr=yes", "'stages.sean.lr' is True: it must be a number"),
        ("stages.sean.size=[on, 48]", "'stages.sean.size' is [True, 48]: it must be a number"),
        ("data.source.encoding=off", "'data.source.encoding' is False: it must be a valid string. YAML reads yes, no,"),
        ("stages.sean.network=no", "False is not a network. YAML reads yes, no, on and off as true and false; quote"),
        ("stages.sean.augment={on: 1}", "'stages.sean.augment': key 'on' means true in YAML"),
        ("a." * 5000 + "a=1", "has more than 32 levels"),
    ],
)
def test_errors_name_key_place_and_remedy(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError) as failure:
        load_recipe(str(recipe), [override])
    assert message in str(failure.value)
    assert str(failure.value).startswith(f"{recipe}: " if "must be given" in message else "command line: ")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("stages", ["[512, 256]", "3", "null"])
def test_a_stage_in_what_an_override_has_replaced(recipe: Path, stages: str) -> None:
    with pytest.raises(UsageError, match=r"'(sean|stages)' of 'stages.sean.lr' (is not in the list|holds a value)"):
        load_recipe(str(recipe), [f"stages={stages}", "stages.sean.lr=1"])


def test_all_errors_are_told_at_once(recipe: Path) -> None:
    with pytest.raises(UsageErrors) as failure:
        load_recipe(str(recipe), ["stages.sean.lr=-1", "sede=1"])
    assert len(str(failure.value).splitlines()) == 2


def test_a_reference_must_be_a_stage_before(tmp_path: Path) -> None:
    content = tree(tmp_path, evaluate={"method": "evaluate", "model": "@sean"}, sean={"method": "sean"})
    with pytest.raises(UsageError, match="'@sean' is not a stage before 'evaluate'"):
        load_recipe(str(write_recipe(tmp_path / "r.yaml", content)), [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: ~nobody_has_this_name", "there is no such home folder"),
        (f"base: {'x' * 5000}", "no recipe of this name, and no file"),
        (f"base: {'x' * 5000}.yaml", "the recipe does not exist"),
        ("base: [a, b]", "`base` is ['a', 'b']"),
        ("stages: &a {b: *a}", "*a refers to itself (line 1)"),
        ("seed: 1\ndescription: x\nseed: 2", "key 'seed' appears twice, first in line 1 (line 3)"),
        ("data: {source: {root: ???}}", "needs quotes (line 1)"),
        ("".join(f"{' ' * k}a:\n" for k in range(300)), "more than 32 levels"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as failure:
        load_recipe(str(path), [])
    assert str(failure.value).startswith(f"{path}: ") and message in str(failure.value)
    assert "\n" not in str(failure.value)


def test_very_many_errors_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("".join(f"k{number}: 1\n" for number in range(500)))
    with pytest.raises(UsageErrors) as failure:
        load_recipe(str(path), [])
    lines = str(failure.value).splitlines()
    assert len(lines) == 21 and "482 more" in lines[-1]


def test_a_folder_of_a_shipped_recipes_name_does_not_hide_it_as_base(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()  # what `make demo` leaves
    (tmp_path / "mine.yaml").write_text("base: demo\nseed: 5")
    data = ["data.source.root=a", "data.target.root=b"]
    assert load_recipe(str(tmp_path / "mine.yaml"), data).seed == 5
    (tmp_path / "runs").mkdir()
    (tmp_path / "mine.yaml").write_text("base: runs")
    with pytest.raises(UsageError, match="base 'runs': it is not a file"):
        load_recipe(str(tmp_path / "mine.yaml"), data)


def test_a_chain_of_bases_has_an_end(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number}.yaml").write_text(f"base: {number + 1}.yaml")
    with pytest.raises(UsageError, match="`base` of one another"):
        load_recipe(str(tmp_path / "0.yaml"), [])


@pytest.mark.parametrize("key", ["data.source.root", "label_space"])
def test_a_home_folder_that_is_not_there(recipe: Path, key: str) -> None:
    loaded = load_recipe(str(recipe), [f"{key}=~nobody_has_this_name"])
    with pytest.raises(UsageError, match="there is no such home folder"):
        if key == "label_space":
            load_label_space(loaded.label_space)
        else:
            loaded.data.domains("source")[0].pairs("train")


@pytest.mark.parametrize(
    ("override", "key", "what"),
    [
        ("data.target.labelled=0", "data.target.labelled", "greater than or equal to 1, or it must be a path"),
        ("data.target.labelled=[1]", "data.target.labelled", "a valid integer, or it must be a path"),
        (
            "stages.sean.network={name: hrda, detail: x}",
            "stages.sean.network",
            "option `detail` of hrda is 'x': it must be a valid number.*, or it must be a valid tuple",
        ),
    ],
)
def test_a_value_of_several_types_is_one_error_without_their_inner_names(
    override: str, key: str, what: str, recipe: Path
) -> None:
    with pytest.raises(UsageError, match=rf"command line: '{key}'(: | is ).*{what}") as error:
        load_recipe(str(recipe), [override, "stages.sean.official=false", "stages.sean.quirks={}"])
    assert not isinstance(error.value, UsageErrors)
