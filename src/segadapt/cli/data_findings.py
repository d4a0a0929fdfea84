"""What `data check` tells about a split: as text, and with `--json` as plain data."""

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segadapt.cli.data_domains import Domain
    from segadapt.data.tools.check import Findings


def print_findings(findings: "Findings", size: tuple[int, int] | None) -> None:
    """The report of one split on stdout."""
    from segadapt.data.tools.check_warnings import warnings_about
    from segadapt.data.walking import natural

    typer.echo(
        f"split {findings.split}: {findings.images} images" + ("" if findings.reader else ", labels not checked")
    )
    common = [f"{w}×{h} ({count})" for (w, h), count in findings.sizes.most_common(3)]
    more = f" and {len(findings.sizes) - 3} more" if len(findings.sizes) > 3 else ""
    typer.echo(f"  sizes: {', '.join(common)}{more}")
    if findings.tagged:
        how = "turned as it says" if findings.exif == "turn" else "read as they are stored"
        count = len(findings.tagged)
        typer.echo(f"  EXIF orientation: {count} image{'s' * (count > 1)}, {how} ({findings.tagged})")
    if size is not None and (warning := findings.aspect_warning(size)):
        typer.echo(f"  aspect: {warning}")
    if findings.reader is not None:
        typer.echo(f"  {'class':<16}{'% of pixels':>12}{'% of images':>13}")
        for name, pixels, images in findings.shares():
            typer.echo(f"  {name:<16}{pixels:>12.3f}{images:>13.1f}")
    unknown = sorted(findings.unknown.items(), key=lambda item: -item[1].pixels)
    for value, found in unknown[:20]:
        files = ", ".join(found.first_files) + (", …" if found.files > len(found.first_files) else "")
        typer.echo(f"  unknown label {value}: {found.pixels} pixels in {found.files} files ({files})")
    if len(unknown) > 20:
        typer.echo(f"  and {len(unknown) - 20} more unknown labels")
    for name in sorted(findings.broken, key=natural):
        for reason in findings.broken[name]:
            typer.echo(f"  broken: {reason}")
    for warning in warnings_about(findings):
        typer.echo(f"  warning: {warning}")


def print_verdict(checked: "list[Findings]") -> None:
    """What concerns several splits, and what comes of it all: last, so that it counts everything."""
    from segadapt.data.tools.check_warnings import warnings_about, warnings_between

    between = warnings_between(checked)
    for warning in between:
        typer.echo(f"warning: {warning}")
    broken = sum(len(findings.broken) for findings in checked)
    unknown = sum(len(findings.unknown) for findings in checked)
    warnings = len(between) + sum(len(warnings_about(findings)) for findings in checked)
    counted = f"{warnings} warning{'s' * (warnings > 1)}" if warnings else ""
    if not all(findings.sound for findings in checked):
        typer.echo(", ".join([f"{broken} broken", f"{unknown} unknown labels", *([counted] if counted else [])]))
    else:
        typer.echo(f"usable, {counted}" if counted else "all sound")


def plain_findings(findings: "Findings", size: tuple[int, int] | None) -> dict[str, Any]:
    """All of it as JSON has it; shares in percent."""
    from segadapt.data.tools.check_warnings import warnings_about

    checked = findings.reader is not None
    aspect = None if size is None else findings.aspect_warning(size)
    return {
        "split": findings.split,
        "images": findings.images,
        "labelled": findings.labelled if checked else None,
        "usable": findings.sound,
        "sizes": [{"width": w, "height": h, "images": count} for (w, h), count in findings.sizes.most_common()],
        "exif_orientation": {"images": len(findings.tagged), "read": findings.exif},
        "classes": [
            {"name": name, "percent_of_pixels": pixels, "percent_of_images": images}
            for name, pixels, images in (findings.shares() if checked else [])
        ],
        "unknown": {
            value: {"pixels": found.pixels, "files": found.files, "first_files": found.first_files}
            for value, found in sorted(findings.unknown.items(), key=lambda item: -item[1].pixels)
        },
        "broken": findings.broken,
        "warnings": [*([aspect] if aspect else []), *warnings_about(findings)],
    }


def plain_check(found: "Sequence[tuple[Domain, list[Findings]]]", size: tuple[int, int] | None) -> dict[str, Any]:
    """The data sets that were checked, each with its splits and with what concerns several of them."""
    from segadapt.data.tools.check_warnings import warnings_between

    domains = [
        {
            "name": domain.name or None,
            "layout": domain.settings.layout,
            "root": str(domain.settings.root),
            "label_space": domain.space.name,
            "usable": all(findings.sound for findings in checked),
            "splits": [plain_findings(findings, size) for findings in checked],
            "warnings": warnings_between(checked),
        }
        for domain, checked in found
    ]
    problems = sum(findings.problems for _, checked in found for findings in checked)
    return {"problems": problems, "usable": all(one["usable"] for one in domains), "domains": domains}
