"""pytest plugin: golden sets as items under `--llm-eval`; silent without it."""
