"""What quantization cost a model, for people.

print_quality(measure(engine, path, sample, QualityOptions()))
"""

from __future__ import annotations

from edgellm.measure.quality import Quality
from edgellm.ui.console import print_fields, print_line
from edgellm.units import duration, size


def print_quality(found: Quality) -> None:
    """Print one line to remember, and what stands behind it."""
    model, base, divergence = found.model, found.base, found.divergence
    where = f"on {size(found.text_bytes)} of text" if found.complete else f"on {found.n_tokens:,} tokens of text"
    fields = []
    if base is None or divergence is None:
        error = f"{model.perplexity.error:.2f}"
        print_line(f"quality of {model.quant} {where}: perplexity {_perplexity(model.perplexity.value)} ± {error}")
    else:
        change = f"{_perplexity(base.perplexity.value)} -> {_perplexity(model.perplexity.value)}"
        print_line(
            f"quality against {base.quant} {where}: perplexity {change} ({100 * divergence.perplexity_change:+.1f} %)"
            f"   KLD {divergence.mean:.3g}   same top token {100 * divergence.same_top:.1f} %"
        )
        spread = f"median {divergence.median:.3g}, 99 % {divergence.p99:.3g}, most {divergence.maximum:.3g}"
        fields.append(("KLD", f"{spread}; perplexity change ± {100 * divergence.perplexity_change_error:.1f} %"))
    windows = f"windows of {found.n_ctx:,} tokens of {found.text}"
    fields.append(("from", f"{found.n_positions:,} positions in {windows}, in {duration(found.seconds)}"))
    print_fields(fields)


def _perplexity(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else f"{value:,.0f}"
