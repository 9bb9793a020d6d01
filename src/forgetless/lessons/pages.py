"""The lessons as pages: one HTML file each that opens offline, drawn and escaped like a report."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from statistics import median

from markupsafe import Markup

from forgetless.lessons.single_weight import BEST_A, BEST_B, SingleWeight
from forgetless.lessons.single_weight_figures import anchored_paths, plain_paths, rests, surfaces
from forgetless.lessons.two_heads import TwoHeads, summarise
from forgetless.lessons.two_heads_figures import ratios_by_rate, ratios_by_variant, tradeoff
from forgetless.report.environment import environment
from forgetless.report.figures import Figure
from forgetless.report.html import security_policy
from forgetless.report.wording import MINUS


def two_heads_page(lesson: TwoHeads) -> str:
    """Returns the page of the two heads."""
    plain = summarise(lesson.variants["plain"])
    settings = lesson.settings
    rates = {**lesson.rates, settings.learning_rate: lesson.variants["plain"]}
    medians = [median(trial.ratio for trial in trials) for trials in rates.values()]
    ratio = plain["ratio"]
    return _page(
        title="Two tasks, one shared layer",
        lead="A small network learns task A, then task B with everything moving. The lesson says that task A is then "
        "typically fifteen times worse.",
        sentences=[
            f"Over {lesson.num_seeds} seeds the loss of A on its training rows grew {ratio['min']:.3g}x to "
            f"{ratio['max']:.3g}x, median {ratio['median']:.3g}x: one seed says nothing.",
            f"The ratio can be made almost anything: its medians at the rates below are {min(medians):.3g} to "
            f"{max(medians):.3g}. Its denominator is how far A was learned by heart: read the rise of the loss on rows "
            "that were held out.",
            "What learns less forgets less: a lower rate and fewer epochs keep A because they don't learn B, as the "
            "last figure shows. A mitigation is worth its name where it keeps A and learns B.",
            "With the adapter off the network is what it was, bit for bit, and knows nothing of B. With the adapter on "
            "it forgets.",
            "Where replayed rows bring the ratio below 1 while the held-out loss rises, they were learned by heart.",
        ],
        charts=[ratios_by_rate(rates), ratios_by_variant(lesson), tradeoff(lesson)],
        command=f"forgetless lesson two-heads --seeds {lesson.num_seeds}",
        facts=f"{settings.num_inputs} inputs, {settings.width} shared units, {settings.num_rows} training and "
        f"{settings.num_held_out} held-out rows for each task, {settings.num_steps} steps of Adam over all rows at "
        f"{settings.learning_rate:g}. These settings are ours; the lesson's own are not recorded.",
    )


def single_weight_page(lesson: SingleWeight) -> str:
    """Returns the page of the single weight."""
    unstable = [path for path in lesson.at_lesson_rate if path.num_steps is None]
    return _page(
        title="One weight between two tasks",
        lead=f"Task A has left a weight at {BEST_A:g}. Task B wants it at {MINUS}{-BEST_B:g}, and nothing of A is in "
        "its loss.",
        sentences=[
            "At a rate of 0.5 the weight is at B's optimum after one step: the gradient is 2 (w + 2) = 6, and half of "
            "it is the whole distance.",
            "A smaller rate only delays: every step leads further away from A, wherever the path is stopped.",
            "With EWC the weight rests at (2 w_B + strength F w_A) / (2 + strength F), with F = 2: the figure shows "
            "closed form and training. At strength 1 that is the optimum of both tasks together, because A's loss is "
            "the parabola that EWC takes it for. No network's is.",
            "The penalty steepens the surface: descent settles only below a rate of 2 / (2 + strength F). At the "
            f"lesson's 0.5 that leaves {len(unstable)} of {len(lesson.at_lesson_rate)} strengths without rest.",
        ],
        charts=[surfaces(lesson), plain_paths(lesson), anchored_paths(lesson), rests(lesson)],
        command="forgetless lesson single-weight",
        facts="Plain gradient descent; loss of A (w - 1)^2, loss of B (w + 2)^2.",
    )


def _page(
    *, title: str, lead: str, sentences: Sequence[str], charts: Sequence[Figure], command: str, facts: str
) -> str:
    library = files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    templates = files("forgetless.report").joinpath("templates")
    own = templates.joinpath("page.js.j2").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("lesson.html.j2")
        .render(
            title=title,
            lead=lead,
            sentences=sentences,
            charts=charts,
            made=f"Made by `{command}`. {facts}",
            policy=security_policy(library, own),
            plotly=Markup(library),
            script=Markup(own),
            style=Markup(templates.joinpath("style.css.j2").read_text(encoding="utf-8")),
        )
    )
