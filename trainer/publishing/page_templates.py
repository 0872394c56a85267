"""Set up the templates of the pages and cards that the trainer writes."""

import jinja2

from trainer.evaluation.metric_tables import format_interval


def make_environment(autoescape: bool = True) -> jinja2.Environment:
    """Return an environment that refuses names without a value, with the filter `interval`.

    Args:
      autoescape: escape what HTML gives a meaning; False for Markdown.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["interval"] = format_interval
    return environment
