"""Training loops that are not a Recipe: one that takes its randomness from the run, and one that takes only a seed."""

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from sklearn.neural_network import MLPClassifier
from torch import nn

from stabilitykit import Budget


@pytest.mark.parametrize("source", ["init", "shuffle", "stochastic"])
def test_a_loop_of_your_own(stability, images, source):
    """A train function of a run: each source has its stream, so each can vary alone."""
    (inputs, labels), (test_inputs, test_labels) = images.train, images.test

    def train(run):
        with run.stream("init"):
            model = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(inputs[0].numel(), 10)).to(run.device)
        run.perturb(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        for _ in run.epochs(images.epochs):
            for x, y in run.batches((inputs, labels), images.batch_size):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
        return model.eval()(test_inputs.to(run.device))

    stability.check(train, labels=test_labels, vary=source, budget=Budget(accuracy_sd=5, disagreement=90))


def test_a_black_box(stability):
    """A train function of a seed, in any framework: the seed is all that can vary."""
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = x[:600], x[600:], y[:600], y[600:]

    def train(seed):
        model = MLPClassifier(hidden_layer_sizes=50, max_iter=1000, random_state=seed)
        return model.fit(x, y).predict_log_proba(x_test)

    def f1(logits, labels):
        return 100 * f1_score(labels, logits.argmax(1), average="macro")

    budget = Budget(accuracy_sd=5, disagreement=90, f1_sd=5)
    stability.check(train, labels=y_test, metrics={"f1": f1}, budget=budget)
