"""Read handwritten digits: split the data, fit a pipeline, and report how well it reads."""

import argparse

from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, classification_report
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler


def load_data():
    """Return the examples and labels to fit on, then those to score on: one split, the same each time."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=600, stratify=y, random_state=0)
    return X_train, y_train, X_test, y_test


def make_model(trees=50, components=16):
    """Return the pipeline, not fitted: scale each pixel, keep the main directions, and vote with a forest."""
    return Pipeline(
        [
            ("scale", StandardScaler()),
            ("reduce", PCA(components, svd_solver="randomized", random_state=42)),
            ("forest", RandomForestClassifier(trees, n_jobs=-1, random_state=42)),
        ]
    )


def main():
    """Fit the pipeline once, and print its scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, default=50)
    parser.add_argument("--components", type=int, default=16)
    parser.add_argument("--report", action="store_true", help="print precision and recall of each digit")
    arguments = parser.parse_args()

    X_train, y_train, X_test, y_test = load_data()
    model = make_model(arguments.trees, arguments.components)
    folds = cross_val_score(model, X_train, y_train, cv=5)
    print(f"cross-validation: {folds.mean():.3f} +- {folds.std():.3f}")

    model.fit(X_train, y_train)
    predicted = model.predict(X_test)
    print(f"test: {accuracy_score(y_test, predicted):.3f}")
    if arguments.report:
        print(classification_report(y_test, predicted))


if __name__ == "__main__":
    main()
