"""Read handwritten digits: a LightningModule, a LightningDataModule, and a command line."""

import argparse

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split


class Shifted(Dataset):
    """Images of digits, each moved by up to one pixel whenever it is read."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        down, right = torch.randint(-1, 2, (2,)).tolist()
        return self.images[index].roll((down, right), (-2, -1)), self.labels[index]


class Digits(L.LightningDataModule):
    """The digits that scikit-learn brings along: 1,797 images of 8 x 8 pixels."""

    def __init__(self, batch_size=64, workers=0):
        super().__init__()
        self.options = {"batch_size": batch_size, "num_workers": workers}

    def setup(self, stage):
        images, labels = load_digits(return_X_y=True)
        images = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
        labels = torch.tensor(labels)
        self.train, self.val = random_split(Shifted(images[:1200], labels[:1200]), [1000, 200])
        self.test = TensorDataset(images[1200:], labels[1200:])

    def train_dataloader(self):
        return DataLoader(self.train, shuffle=True, **self.options)

    def val_dataloader(self):
        return DataLoader(self.val, **self.options)

    def test_dataloader(self):
        return DataLoader(self.test, **self.options)


class Reader(L.LightningModule):
    """A small convolutional network with dropout."""

    def __init__(self, width=16, rate=3e-3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(16 * width, 10),
        )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self(x), y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_accuracy", (self(x).argmax(-1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.rate)


def main():
    """Train once, and print the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=16)
    arguments = parser.parse_args()

    L.seed_everything(42, workers=True)
    trainer = L.Trainer(max_epochs=arguments.epochs, callbacks=[EarlyStopping("val_loss", patience=3)])
    model, data = Reader(arguments.width), Digits()
    trainer.fit(model, data)
    trainer.test(model, data)


if __name__ == "__main__":
    main()
