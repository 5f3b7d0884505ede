"""Sort short messages into topics: a small BERT, and Hugging Face's Trainer.

It is made from a configuration, with random weights, so that nothing has to be downloaded: a pretrained one comes from
``from_pretrained("bert-base-uncased", num_labels=4)``, and its tokenizer does what ``encode`` does here.
"""

import argparse
import random

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

TOPICS = {
    "weather": ["rain", "sun", "wind", "cloud", "storm", "snow", "frost", "heat"],
    "food": ["bread", "soup", "apple", "cheese", "rice", "salt", "cake", "bean"],
    "travel": ["train", "ticket", "hotel", "road", "bridge", "map", "boat", "suitcase"],
    "music": ["drum", "song", "choir", "piano", "note", "string", "chord", "flute"],
}
FILLERS = ["the", "a", "and", "of", "with", "some", "more", "old", "new", "very", "here", "there", "today"]
WORDS = ["<pad>", *FILLERS, *(word for words in TOPICS.values() for word in words)]


def encode(text):
    return torch.tensor([WORDS.index(word) for word in text.split()])


class Messages(Dataset):
    """Messages of eight words: four say nothing, three are of the topic, and one is of another."""

    def __init__(self, count, seed):
        draws = random.Random(seed)
        self.examples = []
        for _ in range(count):
            label, other = draws.sample(range(len(TOPICS)), 2)
            names = list(TOPICS)
            words = draws.choices(TOPICS[names[label]], k=3) + draws.choices(TOPICS[names[other]], k=1)
            words += draws.choices(FILLERS, k=4)
            draws.shuffle(words)
            self.examples.append({"input_ids": encode(" ".join(words)), "labels": label})

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


TRAIN, TEST = Messages(600, seed=0), Messages(300, seed=1)


def make_trainer(epochs=8, **options):
    """Return the Trainer, which has trained nothing yet."""
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=8,
        num_labels=len(TOPICS),
    )
    arguments = TrainingArguments(
        num_train_epochs=epochs,
        learning_rate=5e-3,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        seed=42,
        **options,
    )
    return Trainer(
        model=BertForSequenceClassification(config),
        args=arguments,
        train_dataset=TRAIN,
        eval_dataset=TEST,
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())},
    )


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", default="out")
    arguments = parser.parse_args()
    trainer = make_trainer(arguments.epochs, output_dir=arguments.out, save_strategy="no")
    trainer.train()
    print(trainer.evaluate())


if __name__ == "__main__":
    main()
