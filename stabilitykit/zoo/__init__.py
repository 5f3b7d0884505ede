"""The paper's models, its settings as recipes, and the remedies of its appendix A.

Every model is a function that makes a new one, as ``Recipe(model=...)`` takes it: ``resnet14``, or
``functools.partial(resnet14, channels=1, width=0.5)``. The layers have names, by which they can be compared.
"""

from __future__ import annotations

from .qrnn import QRNN
from .remedies import aswa, augment_weights, average_weights, clip_gradients
from .resnet import resnet6, resnet10, resnet14, resnet18
from .settings import cifar10, cifar10_shallow, mnist, penn_treebank
from .shallow import hidden_convolution, hidden_layer, linear, mnist_cnn
from .shufflenet import shufflenet50
from .vgg import vgg11

__all__ = [
    "QRNN", "aswa", "augment_weights", "average_weights", "cifar10", "cifar10_shallow", "clip_gradients",
    "hidden_convolution", "hidden_layer", "linear", "mnist", "mnist_cnn", "penn_treebank", "resnet6", "resnet10",
    "resnet14", "resnet18", "shufflenet50", "vgg11",
]  # fmt: skip
