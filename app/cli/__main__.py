"""Makes `python -m app.cli` equivalent to `segmentation`."""

from app.cli import main

main()
