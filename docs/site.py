"""Hook of MkDocs: links to files of the repository, which the site does not hold, become text."""

import re


def on_page_markdown(markdown: str, **kwargs: object) -> str:
    """Turn ``[text](../path)`` into the text and the path."""
    return re.sub(r"\[([^]]+)\]\(\.\./([^)#]+)[^)]*\)", r"\1 (`\2` in the repository)", markdown)
