"""Training loops that are not a Recipe: one that takes its randomness from the run, and one that takes only a seed."""

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from sklearn.neural_network import MLPClassifier
from torch import nn

from stabilitykit import Budget

# 1.5 times the largest upper bounds over the sources below, R = 10 (benchmarks/README.md):
# accuracy SD 0.23 [0.17, 0.38] (shuffle), disagreement 1.2 [1.1, 1.4] (stochastic).
BUDGET = Budget(accuracy_sd=0.58, disagreement=2.1)


@pytest.fixture(scope="module")
def digits():
    """A third of scikit-learn's digits to train on, the rest to test."""
    x, y = map(torch.tensor, load_digits(return_X_y=True))
    x, train = (x.float() / 16 - 0.305) / 0.376, torch.arange(len(y)) % 3 == 0
    return x[train], y[train], x[~train], y[~train]


@pytest.mark.parametrize("source", ["init", "shuffle", "stochastic"])
def test_a_loop_of_your_own(stability, digits, source):
    """A train function of a run: each source has its stream, so that it can vary alone."""
    inputs, labels, test_inputs, test_labels = digits

    def train(run):
        with run.stream("init"):
            model = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(inputs[0].numel(), 10)).to(run.device)
        run.perturb(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        for _ in run.epochs(80):
            for x, y in run.batches((inputs, labels), batch_size=32):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
        return model.eval()(test_inputs.to(run.device))

    stability.check(train, labels=test_labels, vary=source, budget=BUDGET)


def test_a_black_box(stability):
    """A train function of a seed, in any framework: the seed is all that can vary."""
    x, y = load_digits(return_X_y=True)

    def train(seed):
        model = MLPClassifier(hidden_layer_sizes=50, max_iter=1000, random_state=seed)
        return model.fit(x[:600], y[:600]).predict_log_proba(x[600:])

    def f1(logits, labels):
        return 100 * f1_score(labels, logits.argmax(1), average="macro")

    # 1.5 times the upper bounds over 10 runs: accuracy SD 1.1 [0.8, 1.8], F1 the same, disagreement 10.3 [9.6, 11.0].
    budget = Budget(accuracy_sd=2.7, f1_sd=2.7, disagreement=16)
    stability.check(train, labels=y[600:], metrics={"f1": f1}, budget=budget)
