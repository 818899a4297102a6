"""Networks of the zoo that torchvision does not have, in plain PyTorch."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def conv_block(i, o, kernel=3, stride=1, act=nn.ReLU):
    return nn.Sequential(
        nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(o), act(inplace=True)
    )


class UNet(nn.Module):
    """Contracts three times and expands again; each level's features skip to the other side."""

    def __init__(self, width, classes):
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        pairs = zip([3, *widths], widths)
        self.down = nn.ModuleList([nn.Sequential(conv_block(i, o), conv_block(o, o)) for i, o in pairs])
        self.pool = nn.MaxPool2d(2)
        levels = list(zip(widths[:0:-1], widths[-2::-1]))
        self.up = nn.ModuleList([nn.ConvTranspose2d(i, o, 2, 2) for i, o in levels])
        self.join = nn.ModuleList([nn.Sequential(conv_block(i, o), conv_block(o, o)) for i, o in levels])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        skips = []
        for level, down in enumerate(self.down):
            x = down(self.pool(x) if level else x)
            skips.append(x)
        skips.pop()
        for up, join in zip(self.up, self.join):
            x = join(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)


class Bottleneck(nn.Module):
    def __init__(self, width, shortcut):
        super().__init__()
        self.first = conv_block(width, width, act=nn.SiLU)
        self.second = conv_block(width, width, act=nn.SiLU)
        self.shortcut = shortcut

    def forward(self, x):
        y = self.second(self.first(x))
        return x + y if self.shortcut else y


class Csp(nn.Module):
    """Half of the channels pass bottlenecks, every stage of which is joined at the end."""

    def __init__(self, i, o, count, shortcut=True):
        super().__init__()
        half = o // 2
        self.enter = conv_block(i, o, 1, act=nn.SiLU)
        self.blocks = nn.ModuleList([Bottleneck(half, shortcut) for _ in range(count)])
        self.leave = conv_block((2 + count) * half, o, 1, act=nn.SiLU)

    def forward(self, x):
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Pyramid(nn.Module):
    """Pools of growing size side by side."""

    def __init__(self, width):
        super().__init__()
        self.enter = conv_block(width, width // 2, 1, act=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = conv_block(2 * width, width, 1, act=nn.SiLU)

    def forward(self, x):
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Head(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.box = nn.Sequential(conv_block(width, 16, act=nn.SiLU), nn.Conv2d(16, 4, 1))
        self.kind = nn.Sequential(conv_block(width, 16, act=nn.SiLU), nn.Conv2d(16, classes, 1))

    def forward(self, x):
        return torch.cat([self.box(x), self.kind(x).sigmoid()], 1)


class Yolo(nn.Module):
    """A detector: CSP backbone, a neck that goes up and down again, a head at each of three scales."""

    def __init__(self, width, classes):
        super().__init__()
        a, b, c, d = width, 2 * width, 3 * width, 4 * width
        self.stem = conv_block(3, a, 3, 2, nn.SiLU)
        self.stage1 = nn.Sequential(conv_block(a, b, 3, 2, nn.SiLU), Csp(b, b, 1))
        self.stage2 = nn.Sequential(conv_block(b, c, 3, 2, nn.SiLU), Csp(c, c, 2))
        self.stage3 = nn.Sequential(conv_block(c, d, 3, 2, nn.SiLU), Csp(d, d, 1), Pyramid(d))
        self.grow = nn.Upsample(scale_factor=2, mode="nearest")
        self.up2 = Csp(c + d, c, 1, False)
        self.up1 = Csp(b + c, b, 1, False)
        self.shrink1 = conv_block(b, b, 3, 2, nn.SiLU)
        self.down2 = Csp(b + c, c, 1, False)
        self.shrink2 = conv_block(c, c, 3, 2, nn.SiLU)
        self.down3 = Csp(c + d, d, 1, False)
        self.heads = nn.ModuleList([Head(w, classes) for w in (b, c, d)])

    def forward(self, x):
        one = self.stage1(self.stem(x))
        two = self.stage2(one)
        three = self.stage3(two)
        middle = self.up2(torch.cat([self.grow(three), two], 1))
        fine = self.up1(torch.cat([self.grow(middle), one], 1))
        middle = self.down2(torch.cat([self.shrink1(fine), middle], 1))
        coarse = self.down3(torch.cat([self.shrink2(middle), three], 1))
        return tuple(head(y) for head, y in zip(self.heads, (fine, middle, coarse)))


def heads_of(x, heads):
    batch, length, width = x.shape
    return x.view(batch, length, heads, width // heads).transpose(1, 2)


class BertLayer(nn.Module):
    """Attention and feed-forward network, each normalised after its sum."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.intermediate = nn.Linear(width, 2 * width)
        self.output = nn.Linear(2 * width, width)
        self.output_norm = nn.LayerNorm(width)

    def forward(self, x, mask):
        q, k, v = (heads_of(f(x), self.heads) for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask
        context = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = self.attention_norm(x + self.attention_out(context))
        return self.output_norm(x + self.output(F.gelu(self.intermediate(x))))


class Bert(nn.Module):
    """An encoder with a classifier on its first token."""

    def __init__(self, vocabulary, length, width, heads, layers, classes=3):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList([BertLayer(width, heads) for _ in range(layers)])
        self.pooler = nn.Linear(width, width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, input_ids, attention_mask, token_type_ids):
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.norm(self.words(input_ids) + self.types(token_type_ids) + self.positions(positions))
        mask = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        for layer in self.layers:
            x = layer(x, mask)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


class GptLayer(nn.Module):
    """Attention and feed-forward network, each behind a normalisation."""

    def __init__(self, width, heads, length):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("causal", torch.ones(length, length).tril().bool(), persistent=False)

    def forward(self, x):
        length = x.shape[1]
        q, k, v = (heads_of(part, self.heads) for part in self.qkv(self.norm1(x)).split(x.shape[2], 2))
        scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]))
        scores = scores.masked_fill(~self.causal[:length, :length], float("-inf"))
        x = x + self.project((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return x + self.shrink(F.gelu(self.grow(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """A decoder whose head is the table of embeddings."""

    def __init__(self, vocabulary, length, width, heads, layers):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.layers = nn.ModuleList([GptLayer(width, heads, length) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.words.weight

    def forward(self, input_ids):
        x = self.words(input_ids) + self.positions(torch.arange(input_ids.shape[1], device=input_ids.device))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Recurrent(nn.Module):
    """Convolutions over time and an LSTM; with classes a classifier on its last state."""

    def __init__(self, features, width, classes=None):
        super().__init__()
        self.first = nn.Conv1d(features, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, padding=1)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, classes) if classes else None

    def forward(self, x):
        x = F.relu(self.second(F.relu(self.first(x)))).transpose(1, 2)
        states, _ = self.lstm(x)
        return self.head(states[:, -1]) if self.head else states
