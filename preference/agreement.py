"""How well labels agree with the true return, in several measures that are only ever given together.

Plain accuracy misleads when one label fits nearly all pairs: in VLP's own protocol a constant guess scores 94-98 % (our
reading, from its published accuracies and label correlations).  So the constant label's accuracy stands beside it, where
pairs are across clusters that of knowing which cluster is better, and three measures that a constant label cannot win:
balanced accuracy and AUC (0.5 by chance), Kendall's tau (0 by chance); and accuracy balanced over which cluster wins, 0.5
for who knows the better cluster alone.  Near-ties are noise to every labeller: balanced accuracy is given without them too.

Axes: N pairs (a, b).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robopref.configs.errors import RoboprefError

NEAR_TIE = 0.05  # of the largest true difference; a label is hardly more than luck there
ONE_SIDED = 0.8  # share of one label from which plain accuracy says little
SHOWN = {
    "clear_balanced_accuracy": "balanced, no near-ties",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "constant_accuracy": "constant label",
    "cluster_accuracy": "cluster bit",
    "cluster_balanced_accuracy": "balanced by cluster",
    "auc": "AUC",
    "kendall_tau": "Kendall tau",
}
"""Measures of a table -> their heads; those of clusters are missing where pairs are not across two."""


def agreement(preference: np.ndarray, truth: np.ndarray, clusters: np.ndarray | None = None) -> dict[str, float]:
    """Compare signed preferences (N,) with true return differences (N,), both > 0 where b is better.

    preference: score_b - score_a, or label - 0.5; 0 is a tie and counts as half right.  truth: return of b minus that
    of a; pairs with truth 0 have no right answer and only enter Kendall's tau.  clusters: (N, 2), 0 or 1, which cluster
    each side is of.

    accuracy, constant_accuracy (the more frequent answer, always given), n (pairs with an answer), ties (without one)
    and near_ties (a true difference below 5 % of the largest, ties included).  balanced_accuracy: mean of the
    accuracies where b and where a is better; auc: of `preference` as a detector of "b is better"; both NaN when the
    same side always wins. kendall_tau: tau-b between preference and truth; 0 for a constant, which orders nothing.
    clear_accuracy and clear_balanced_accuracy: of the pairs that are no near-ties.

    With clusters: cluster_accuracy, of the better cluster as the answer to every pair (the cluster bit); over_cluster, accuracy
    less cluster_accuracy; cluster_balanced_accuracy, mean of the accuracies where the one and where the other cluster wins,
    0.5 for the cluster bit and for a constant, NaN when the same cluster always wins.
    """
    preference, truth = np.asarray(preference, np.float64), np.asarray(truth, np.float64)
    if preference.shape != truth.shape or preference.ndim != 1:
        raise ValueError(f"preference {preference.shape} and truth {truth.shape} must be of one length")
    if not (np.isfinite(preference).all() and np.isfinite(truth).all()):
        raise RoboprefError("A label or a true return is NaN; annotate again.")
    decided = truth != 0
    b_wins = truth[decided] > 0
    right = (1 + np.sign(preference[decided]) * np.sign(truth[decided])) / 2
    both = 0 < b_wins.sum() < len(b_wins)
    near = np.abs(truth) < NEAR_TIE * np.abs(truth).max(initial=0.0) if decided.any() else np.ones(len(truth), bool)
    clear = ~near[decided]
    found = {
        "accuracy": _mean(right),
        "balanced_accuracy": _balanced(right, b_wins),
        "clear_accuracy": _mean(right[clear]),
        "clear_balanced_accuracy": _balanced(right[clear], b_wins[clear]),
        "auc": _auc(b_wins, preference[decided]) if both else float("nan"),
        "kendall_tau": _tau(preference, truth),
        "constant_accuracy": one_sided_accuracy(truth),
        "n": int(decided.sum()),
        "ties": int((~decided).sum()),
        "near_ties": int(near.sum()),
    }
    if clusters is not None:
        towards = truth * (clusters[:, 1] - clusters[:, 0])
        found["cluster_accuracy"] = one_sided_accuracy(towards)
        found["over_cluster"] = found["accuracy"] - found["cluster_accuracy"]
        found["cluster_balanced_accuracy"] = _balanced(right, towards[decided] > 0)
    return found


def one_sided_accuracy(truth: np.ndarray) -> float:
    """Accuracy of always giving the more frequent answer; truth: (N,) return differences, 0 where there is none.

    With pairs across two clusters and differences from one cluster to the other: the accuracy of who knows nothing but which
    cluster is the better one.  Shuffled sides hide that from a constant label.
    """
    wins = truth[truth != 0] > 0
    return max(_mean(wins), _mean(~wins))


def better_cluster(truth: np.ndarray, clusters: np.ndarray) -> int:
    """Which of two clusters wins more pairs: 1, or -1 for cluster 0, or 0 when neither does.

    truth: (N,) return differences, b minus a; clusters: (N, 2), 0 or 1.
    """
    return int(np.sign(np.sign(truth * (clusters[:, 1] - clusters[:, 0])).sum()))


def format_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """A plain table, one line a labeller, every measure in it, and a warning where plain accuracy says little."""
    head = ["labels", *SHOWN.values(), "pairs", "near-ties"]
    table = [head]
    for name, row in rows.items():
        measures = [row.get(key) for key in SHOWN]
        table.append([name, *map(_number, measures), str(int(row["n"])), str(int(row["near_ties"]))])
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    one_sided = [name for name, row in rows.items() if (row["constant_accuracy"] or 0.0) > ONE_SIDED]
    if one_sided:
        lines.append(f"{', '.join(one_sided)}: one answer fits most pairs, so look at balanced accuracy, AUC or tau.")
    return "\n".join(lines)


def _tau(preference: np.ndarray, truth: np.ndarray) -> float:
    if len(np.unique(preference)) < 2 or len(np.unique(truth)) < 2:
        return 0.0
    from scipy.stats import kendalltau

    return float(kendalltau(preference, truth).statistic)


def _auc(wins: np.ndarray, preference: np.ndarray) -> float:
    """Share of (winner, loser) that `preference` orders rightly, ties half; by ranks, as importing scikit-learn takes 1 s."""
    _, group, count = np.unique(preference, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[group]  # from 1, tied ones share the mean of theirs
    winners = int(wins.sum())
    return float((rank[wins].sum() - winners * (winners + 1) / 2) / (winners * (len(wins) - winners)))


def _balanced(right: np.ndarray, wins: np.ndarray) -> float:
    """Mean of the accuracies where `wins` (N,) and where not; NaN when there are none of either."""
    return (_mean(right[wins]) + _mean(right[~wins])) / 2 if 0 < wins.sum() < len(wins) else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _number(value: float | None) -> str:
    """JSON turns NaN into None, so both mean undefined."""
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"
