"""``edxdenoise review``: a local page on which a person overrules the selection."""

from __future__ import annotations

from pathlib import Path

import click

from edxdenoise.cli.helpers import say
from edxdenoise.cli.options import command, file_argument


@command(short_help="Overrule the selection of a denoised FILE by hand.")
@file_argument
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Port of the page.  [default: a free one]",
)
@click.option("--no-browser", is_flag=True, help="Print the address only.")
def review(file: Path, port: int, no_browser: bool) -> None:
    """Keep or drop the components of a denoised FILE by hand, on a page in the browser.

    The page is on this machine alone; Ctrl-C ends it. Choices that are not saved wait beside FILE,
    in FILE.review.json, for the next time.

    \b
    edxdenoise review map.zarr
    """
    from edxdenoise.errors import ParameterError
    from edxdenoise.review.server import ReviewServer
    from edxdenoise.review.state import Review

    say(f"reading {file}")
    found = Review(file)
    try:
        server = ReviewServer(found, port)
    except OSError as error:
        raise ParameterError(
            f"port {port} cannot be used: {error.strerror}; leave --port out for a free one"
        ) from error
    click.echo(server.address)
    if not no_browser:
        click.launch(server.address)
    say("Ctrl-C ends the review")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        # The usual end of a review.
        server.wait()
    finally:
        server.server_close()
