"""CKA of all pairs of R models by layer, as in the paper's figure 1, at scale: seconds and peak memory.

``python benchmarks/cka.py`` takes some minutes; ``python benchmarks/cka.py 25`` compares 25 models only. ResNet-14 on
32 x 32 images, six layers, 2,000 test examples. The models are initialised and not trained: the cost is the same. The
time of the processor, over all threads, is given beside that of the clock, which counts what else the machine does.
"""

from __future__ import annotations

import itertools
import sys
import time

import torch
from peak import Peak
from torch import Tensor, nn

from stabilitykit.study.layer_similarity import compare_layers
from stabilitykit.training.data import Layout, TensorExamples
from stabilitykit.zoo import resnet14

EXAMPLES = 2000
LAYERS = ("conv1", "block1", "block2", "block3", "pool", "logits")


def build() -> nn.Module:
    return resnet14().to(memory_format=torch.channels_last)


def state_of(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return resnet14().state_dict()


def main(runs: int) -> None:
    images = torch.randn(EXAMPLES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    device = torch.device("cpu")
    data = TensorExamples(images, torch.zeros(EXAMPLES), Layout(device, memory_format=torch.channels_last))
    states = [state_of(seed) for seed in range(runs)]
    peak, start, spent = Peak(), time.perf_counter(), time.process_time()
    found = compare_layers(build, states, data, device, examples=EXAMPLES)
    seconds, of_processor = time.perf_counter() - start, time.process_time() - spent
    assert found.layers == LAYERS
    pairs = len(list(itertools.combinations(range(runs), 2)))
    print(
        f"R = {runs}, {pairs} pairs, {torch.get_num_threads()} thread(s): {seconds:.0f} s, {of_processor:.0f} s of "
        f"processor, peak memory {peak.bytes() / 2**20:.0f} MiB over the weights and images"
    )
    print(found)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
