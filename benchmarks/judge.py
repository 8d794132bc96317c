"""Judge generated rows by what this field reads: SDMetrics 0.11.1, boosted trees, distances to training rows.

    python benchmarks/judge.py TRAIN.csv GENERATED.csv TEST.csv [TARGET]     prints JSON

`mixed.py` calls it, with the Python of an environment of its own (`pip install '.[bench]'`): SDMetrics 0.11.1
needs a numpy below 2. Columns are categorical where their text is no number and numerical where it is, as TabSyn's
metadata have it; dates are the seconds since 1970.

- `detection`, `logistic`: SDMetrics' detection by XGBoost and by logistic regression, training rows against as many
  generated ones: 1 - (2 AUC - 1), so 1 can't be told.
- `shape`, `trend`: 1 less SDMetrics' column shapes and column pair trends.
- `c2st`: AUC of LightGBM, mean of two folds and of three draws of as many generated as test rows; .5 can't be told.
- `auc`: of XGBoost, trained on generated rows to tell the rarest value of TARGET, on test rows.
- `nearer`: share of generated rows that are nearer to a training row than to a test row, as many of each, ties half;
  distances add differences of numbers, in their range, and of categories, 2 each.

`real` has what other real rows score in their place: test rows for `shape` and `trend`, training rows for `c2st`
and `auc`.
"""

from __future__ import annotations

import json
import sys
import warnings

import lightgbm
import numpy as np
import pandas as pd
import xgboost
from scipy.spatial.distance import cdist
from sdmetrics.reports.single_table import QualityReport
from sdmetrics.single_table.detection import LogisticDetection
from sdmetrics.single_table.detection.sklearn import ScikitLearnClassifierDetectionMetric
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

DRAWS = 3  # of rows that the classifiers see
QUERIES, CHUNK = 4000, 500  # rows whose nearest others are searched, and at a time

DATE = r"\d{4}-\d\d-\d\d([ T][\d:.]+)?"

Frame = pd.DataFrame


class XGBoostDetection(ScikitLearnClassifierDetectionMetric):
    """SDMetrics' detection by XGBoost."""

    @staticmethod
    def _get_classifier() -> xgboost.XGBClassifier:
        return xgboost.XGBClassifier(n_jobs=1, random_state=0)


def read(path: str) -> Frame:
    """Return the rows of a file."""
    rows = pd.read_csv(path)
    for name, column in rows.items():
        if not is_number(column) and column.dropna().str.fullmatch(DATE).all():
            seconds = pd.to_datetime(column) - pd.Timestamp(0)
            rows[name] = seconds.dt.total_seconds()
    return rows


def is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def quality(train: Frame, made: Frame, metadata: dict) -> dict[str, float]:
    """Return the errors of column shapes and of column pair trends."""
    report = QualityReport()
    report.generate(train, made, metadata, verbose=False)
    scores = report.get_properties().set_index("Property")["Score"]
    return {"shape": 1 - scores["Column Shapes"], "trend": 1 - scores["Column Pair Trends"]}


def for_trees(rows: Frame, like: Frame) -> Frame:
    """Return rows with the names of `like` in text columns as categories."""
    return Frame(
        {
            name: column
            if is_number(like[name])
            else column.astype(pd.CategoricalDtype(sorted(like[name].dropna().unique())))
            for name, column in rows.items()
        }
    )


def c2st(a: Frame, b: Frame, like: Frame) -> float:
    """Return LightGBM's AUC between rows a and b, as many of each."""
    n, areas = min(len(a), len(b)), []
    for draw in range(DRAWS):
        parts = [for_trees(rows.sample(n, random_state=draw), like) for rows in (a, b)]
        rows, label = pd.concat(parts, ignore_index=True), np.repeat([1, 0], n)
        folds = StratifiedKFold(2, shuffle=True, random_state=draw)
        for known, asked in folds.split(rows, label):
            model = lightgbm.LGBMClassifier(verbose=-1, n_jobs=1, random_state=draw)
            model.fit(rows.iloc[known], label[known])
            odds = model.predict_proba(rows.iloc[asked])[:, 1]
            areas.append(roc_auc_score(label[asked], odds))
    return float(np.mean(areas))


def auc(known: Frame, test: Frame, target: str, like: Frame) -> float:
    """Return the AUC on test rows of XGBoost, trained to tell the rarest value of a column."""
    rare = like[target].value_counts().index[-1]
    model = xgboost.XGBClassifier(
        n_jobs=1, enable_categorical=True, max_depth=6, n_estimators=100, learning_rate=0.1
    )
    model.fit(for_trees(known.drop(columns=target), like), known[target] == rare)
    odds = model.predict_proba(for_trees(test.drop(columns=target), like))[:, 1]
    return float(roc_auc_score(test[target] == rare, odds))


def placed(rows: Frame, like: Frame) -> np.ndarray:
    """Return rows [n, f]: numbers in their range, a missing one at its middle, categories one-hot."""
    parts = []
    for name in like:
        if is_number(like[name]):
            low, high = like[name].min(), like[name].max()
            part = ((rows[name] - low) / max(high - low, 1e-12)).fillna(0.5).to_numpy()[:, None]
        else:
            names = sorted(like[name].dropna().unique())
            part = rows[name].to_numpy()[:, None] == np.array(names, dtype=object)
        parts.append(part.astype(np.float32))
    return np.concatenate(parts, 1)


def nearer(train: Frame, made: Frame, test: Frame) -> float:
    """Return the share of generated rows that are nearer to a training row than to a test row."""
    n = min(len(train), len(test))
    known, fresh = (placed(rows.sample(n, random_state=0), train) for rows in (train, test))
    queries = placed(made.iloc[:QUERIES], train)
    wins = 0.0
    for at in range(0, len(queries), CHUNK):
        part = queries[at : at + CHUNK]
        a, b = (cdist(part, rows, "cityblock").min(axis=1) for rows in (known, fresh))
        wins += np.sum(np.where(a == b, 0.5, a < b))
    return float(wins / len(queries))


def judged(train: Frame, made: Frame, test: Frame, target: str | None) -> dict:
    """Return all figures, and what real rows score."""
    kinds = {n: "numerical" if is_number(column) else "categorical" for n, column in train.items()}
    metadata = {"columns": {name: {"sdtype": kind} for name, kind in kinds.items()}}
    made = made.iloc[: len(train)]
    like = pd.concat([train, test], ignore_index=True)
    return {
        "detection": XGBoostDetection.compute(train, made, metadata=metadata),
        "logistic": LogisticDetection.compute(train, made, metadata=metadata),
        **quality(train, made, metadata),
        "c2st": c2st(test, made, like),
        "nearer": nearer(train, made, test),
        **({"auc": auc(made, test, target, like)} if target else {}),
        "real": {
            **quality(train, test, metadata),
            "c2st": c2st(test, train, like),
            **({"auc": auc(train, test, target, like)} if target else {}),
        },
    }


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    np.random.seed(0)  # noqa: NPY002  SDMetrics cuts its folds with the global generator
    rows = [read(path) for path in sys.argv[1:4]]
    print(json.dumps(judged(*rows, sys.argv[4] if len(sys.argv) > 4 else None)))
