"""`python -m app.cli` is `segmentation`."""

from app.cli import main

main()
