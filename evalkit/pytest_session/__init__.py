"""The evaluation inside a pytest session; nothing here is loaded without `--llm-eval`.

`hooks` is what pytest calls, `items` what it collects. `units` says which calls the items
need, `ahead` makes them before they are asked for, `runs` keeps their results, `gate`
decides, `terminal` shows. `workers` and `board` are for several processes at once.
"""
