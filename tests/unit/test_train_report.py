"""The training as a page."""

from components.train.contract import Run
from components.train.history import History, Progress
from components.train.report import report
from components.train.run import train
from tests.feature_sets import feature_set, mixed_frame


def test_the_page_shows_metrics_curves_parity_and_what_was_chosen(tmp_path):
    features = feature_set(tmp_path / "features", mixed_frame(), "binary")
    made = train(features, tmp_path / "bundle", hyperparameters={"max_iter": 7})
    history = History()
    run = Run(0, listeners=(history,))
    for epoch in (1, 2, 2, 3):  # a retry tells an epoch again
        run.epoch(epoch, {"train_loss": 1 / epoch, "valid_loss": 1.1 / epoch, "valid_roc_auc": 0.8}, 1e-3)
    page = report(made.manifest, made.metrics, history, trials=[0.7, 0.8, 0.75])
    assert history.series("train_loss") == [(1.0, 1.0), (2.0, 0.5), (3.0, 1 / 3)]
    for said in (
        "Training of hist_gradient_boosting",
        "Learning rate",
        "roc_auc on the valid split",
        "Search: 3 trials",
    ):
        assert said in page
    assert page.count("<svg") == 4
    assert f"{made.metrics['valid_roc_auc']:.4g}" in page
    assert "holds" in page
    assert "<td>max_iter</td><td><code>7</code></td>" in page


def test_a_trainer_without_epochs_has_a_page_without_curves(tmp_path):
    features = feature_set(tmp_path / "features", mixed_frame(), "binary")
    made = train(features, tmp_path / "bundle", trainer="linear")
    assert "<svg" not in made.page()


def test_a_watcher_is_told_of_epochs_at_a_readable_pace(monkeypatch):
    said, now = [], [100.0]
    monkeypatch.setattr("components.train.history.time.monotonic", lambda: now[0])
    watch = Progress(said.append, every=2.0)
    for epoch in range(1, 8):
        watch(epoch, {"train_loss": 0.5, "valid_roc_auc": 0.81234, "rows_per_second": 9000.0})
        now[0] += 1.0
    assert said[0] == "epoch 1: train_loss 0.5, valid_roc_auc 0.8123"
    assert [line.split(":")[0] for line in said] == ["epoch 1", "epoch 3", "epoch 5", "epoch 7"]
