"""The Profile Query Language: text to checked, typed conditions; standard library only, knows no data and no engine."""
