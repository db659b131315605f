"""What the README and the pages of `app/docs` hold: operations, commands, settings, files, links."""

import re
import shlex
from pathlib import Path

from graphql import DocumentNode, OperationDefinitionNode, parse

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "app" / "docs").glob("*.md")))}


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def operations(text: str) -> list[DocumentNode]:
    """The GraphQL operations of a page, each as a document, in their order."""
    return [
        DocumentNode(definitions=(definition,))
        for block in blocks(text, "graphql")
        for definition in parse(block).definitions
        if isinstance(definition, OperationDefinitionNode)
    ]


def commands(text: str) -> list[list[str]]:
    """The arguments of each `segmentation` command in the shell blocks of a page, and of those in its sentences."""
    lines = [
        line.removeprefix("$ ")
        for block in blocks(text, "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.removeprefix("$ ").startswith("segmentation ")
    ]
    lines += [line.replace("\n", " ") for line in re.findall(r"`(segmentation [^`]*)`", text)]
    return [shlex.split(line, comments=True)[1:] for line in lines]
