"""``sluiceway export``: a model for devices."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.clear_errors import clear_errors


def export(
    bundle: Annotated[Path, typer.Argument(help="A model bundle: the folder that holds bundle.json.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder to write; an earlier export is replaced.")],
    quantize: Annotated[
        bool, typer.Option("--quantize", help="Make a network's layers 8-bit integers: a quarter of the size.")
    ] = False,
    rows: Annotated[
        Path | None,
        typer.Option(help="CSV or Parquet file of raw rows to compare on; by default those that the bundle keeps."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Largest difference to the server's predictions; by default the bundle's own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on standard output.")] = False,
) -> None:
    """Export a bundle's model for devices: onnxruntime's own format, with a manifest, compared with the server.

    The bundle is verified first. An export that predicts otherwise than the server is refused. examples/edge has a
    client of twenty lines.

    Example: sluiceway export .sluiceway/runs/LATEST/bundle --to build/edge --quantize
    """
    from serving.edge.export import export as write

    with clear_errors():
        made = write(bundle, to, quantize=quantize, rows=rows, tolerance=tolerance)
    if as_json:
        sys.stdout.write(made.model_dump_json() + "\n")
        return
    size = made.files[made.file].bytes
    typer.echo(
        f"{to / made.file}  {size:,} bytes{', 8-bit' if made.quantized else ''}; predictions differ by at most "
        f"{made.parity.max_abs:.2g} on {made.parity.rows:,} rows ({made.parity.source})"
    )
