"""The Profile Query Language: turns text into checked, typed conditions; uses only the standard library and knows
neither data nor engine."""
