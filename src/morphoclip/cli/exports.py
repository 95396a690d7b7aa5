"""`morphoclip export | push | import`: encoder folders from runs, to a hub, and from weights that others published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from morphoclip.cli.app import Trust, app


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="run folder, checkpoint, encoder folder or hub id")],
    to: Annotated[Path, typer.Option(help="encoder folder to make")],
    format: Annotated[
        list[str] | None,
        typer.Option(
            help="also onnx (model.onnx), torch_export (model.pt2), timm or huggingface; repeat it for several"
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="float32, or float16: half the size; features are computed in float32")
    ] = "float32",
    preprocess: Annotated[
        bool,
        typer.Option("--preprocess", help="onnx, torch_export: uint16 crops in, intensities are scaled in the graph"),
    ] = False,
    crop_size: Annotated[
        int | None, typer.Option(help="onnx, torch_export: crops in pixels; default: as trained")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="licence of the weights for the model card, e.g. cc-by-4.0")
    ] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Write an encoder folder: config.json, model.safetensors, a model card and, for image-text models, the text tower.

    The folder is complete in itself: load it, embed with it, query it, push it. With --format timm or huggingface it is
    also read by timm ("local-dir:FOLDER") and by transformers' AutoModel, without morphoclip.
    """
    from morphoclip.profiling import export_encoder

    options: dict[str, Any] = {"dtype": dtype, "preprocess": preprocess, "crop_size": crop_size, "license": license}
    folder = export_encoder(run, to, format or (), trust_remote_code=trust_remote_code, **options)
    for line in _exported(folder):
        typer.echo(line)
    typer.echo(folder)


def _exported(folder: Path) -> list[str]:
    """A line for each figure that an export measured."""
    import json

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    lines = []
    if "model.onnx" in config["files"]:
        difference = config["onnxruntime_difference"]
        compared = (
            "not compared: onnxruntime is not installed" if difference is None else f"differs by {difference:.1e}"
        )
        lines.append(f"model.onnx: ONNX Runtime {compared}")
    if "float16_cosine" in config:
        lines.append(f"float16: cosine to the float32 features at least {config['float16_cosine']}")
    return lines


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="encoder folder, from `morphoclip export`")],
    repository: Annotated[str, typer.Argument(help="Hugging Face repository, owner/name; made if there is none")],
    public: Annotated[bool, typer.Option("--public", help="make a new repository public; default: private")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list what would be uploaded")] = False,
) -> None:
    """Upload an encoder folder to a Hugging Face repository, after comparing every file with its hash.

    Log in first with `hf auth login`, or set HF_TOKEN. Everybody then loads it by `load_encoder("owner/name")`.
    """
    from morphoclip.export.hub import push as push_folder
    from morphoclip.export.hub import upload_of

    for name, content in upload_of(folder, repository).items():
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        typer.echo(f"{name}  {size / 1e6:.2f} MB")
    if not dry_run:
        typer.echo(push_folder(folder, repository, private=not public))


@app.command("import")
def import_weights(
    kind: Annotated[str, typer.Argument(help="cellpaintssl (Kim et al. 2025) or cellclip (Lu et al. 2025)")],
    file: Annotated[Path, typer.Argument(help="their checkpoint; no code in it is run")],
    to: Annotated[Path, typer.Option(help="encoder folder to make")],
    channels: Annotated[
        str | None, typer.Option(help="names in the order of its training: Mito,AGP,RNA,ER,DNA")
    ] = None,
) -> None:
    """Write an encoder folder from weights that others have published, by their names of weights.

    Any other file of weights starts a training by init=FILE.
    """
    from morphoclip.export.published import import_published

    typer.echo(import_published(kind, file, to, None if channels is None else channels.split(",")))
