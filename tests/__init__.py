"""A package, and no mere folder: some libraries install one of the same name, which would be taken for ours."""
