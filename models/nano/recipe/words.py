"""Words for the tasks: glued ones that nobody has seen, some real ones, and the split that holds words apart.

A glued word is two or three pieces of the vocabulary in a row. Every word, number and question belongs to exactly
one split, decided by a hash of its text: what the test split uses, training has never seen.
"""
from __future__ import annotations

import hashlib
import random
import re
from functools import lru_cache


@lru_cache(maxsize=1 << 18)
def split_of(key: str) -> str:
    """train, dev or test: 17, 1 and 2 of 20 by hash."""
    n = hashlib.blake2s(key.encode(), digest_size=4).digest()[0] % 20
    return "test" if n < 2 else "dev" if n == 2 else "train"


CITIES = ("Oslo Paris London Rome Berlin Madrid Vienna Tokyo Lima Cairo Delhi Dublin Athens Prague Lisbon Warsaw Kyoto "
          "Seoul Boston Chicago Dallas Denver Miami Milan Moscow Munich Nairobi Quito Riga Sofia Sydney Toronto "
          "Venice Zurich Bergen Helsinki Stockholm Beijing Shanghai Lagos Accra Hanoi Manila Geneva Lyon Porto "
          "Seattle Austin Bern Kiev Tunis Dakar").split()
PEOPLE = ("Anna Bob Carla David Emma Frank Grace Hugo Irene Jack Karen Leo Maria Nina Oscar Paul Rosa Sam Tina Victor "
          "Wendy Alice Ben Clara Dan Eva Felix Gina Henry Ivan Julia Kurt Laura Max Nora Otto Peter Sarah Tom Uma "
          "Mia Lucas Zoe Ada Alan Linus").split()
THINGS = ("apple bread chair desk egg fish guitar hat ice jacket key lamp milk notebook orange pen piano rice shoe "
          "table umbrella violin watch book phone laptop camera bike car boat cup knife spoon door window clock mirror "
          "carpet bottle pencil tea coffee sugar salt").split()
NOUNS = ("weather price stock population phone email address age color owner score status size weight height capital "
         "language currency time date temperature author title rating distance balance role salary grade team country "
         "city name number code level type price speed length width value rank state report news forecast order "
         "schedule profile location history definition meaning recipe price tax rate fee budget room seat").split()
KEYS = ("city name id item key place user product country book person team order room plant code word query title "
        "number date unit color size type year month day file path topic animal movie song").split()
# real word -> the key that a tool about it usually has, and values that fit
REAL_KEYS = {"weather": ("city", CITIES), "temperature": ("city", CITIES), "population": ("city", CITIES),
             "forecast": ("city", CITIES), "time": ("city", CITIES), "news": ("city", CITIES),
             "age": ("name", PEOPLE), "email": ("name", PEOPLE), "phone": ("name", PEOPLE),
             "address": ("name", PEOPLE), "salary": ("name", PEOPLE), "role": ("name", PEOPLE),
             "price": ("item", THINGS), "stock": ("item", THINGS), "color": ("item", THINGS),
             "weight": ("item", THINGS), "size": ("item", THINGS)}
RESULTS = ("rain sun snow fog wind cloudy clear sunny warm cold hot red blue green black white open closed ready full "
           "empty low high good bad new old small large busy free north south east west").split()


class Words:
    """The vocabulary's plain lower-case pieces, and the words that are glued from them."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        vocab = tokenizer.get_vocab()
        self.pieces = sorted(t for t in vocab if re.fullmatch("[a-z]{2,4}", t) and "Ġ" + t in vocab)
        self.tails = sorted(t for t in vocab if re.fullmatch("[a-z]{1,4}", t))
        self.capitals = sorted(t for t in vocab if re.fullmatch("[A-Z][a-z]{0,3}", t) and "Ġ" + t in vocab)

    def glued(self, rng: random.Random, split: str, capital: float = 0.3) -> str:
        """A new word of the split.

        Most words are chosen to be cut into the same pieces after a space and after a quote, as most frequent real
        words are; one in six may differ, so that the model meets both.
        """
        while True:
            first = rng.choice(self.capitals if rng.random() < capital else self.pieces)
            word = first + "".join(rng.choice(self.tails) for _ in range(rng.choice((1, 1, 1, 2))))
            if len(word) < 4 or split_of(word.lower()) != split:
                continue
            if rng.random() < 1 / 6 or self.is_even(word):
                return word

    @lru_cache(maxsize=1 << 18)
    def is_even(self, word: str) -> bool:
        """Whether the word is cut alike with and without a space in front."""
        enc = self.tokenizer.encode
        bare, spaced = enc(word, add_special_tokens=False).tokens, enc(" " + word, add_special_tokens=False).tokens
        return len(bare) <= 4 and spaced == ["Ġ" + bare[0]] + bare[1:]

    def real(self, rng: random.Random, split: str, words: list[str]) -> str:
        """A real word of the split from the list; a glued one where the list has none of the split."""
        mine = [w for w in words if split_of(w.lower()) == split]
        return rng.choice(mine) if mine else self.glued(rng, split, float(words[0][0].isupper()))

    @staticmethod
    def number(rng: random.Random, split: str, digits: int) -> str:
        """A number of the split with that many digits."""
        while True:
            n = str(rng.randrange(10 ** (digits - 1), 10 ** digits))
            if split_of(n) == split:
                return n

    def value(self, rng: random.Random, split: str) -> str:
        """An argument's value: mostly a word, sometimes a number, two words or a word with a number."""
        r = rng.random()
        if r < 0.55:
            return self.glued(rng, split, 0.5)
        if r < 0.75:
            return self.real(rng, split, rng.choice((CITIES, PEOPLE, THINGS)))
        if r < 0.87:
            return self.number(rng, split, rng.choice((2, 3, 4)))
        if r < 0.94:
            return f"{self.glued(rng, split, 0.5)}-{self.number(rng, split, 2)}"
        return f"{self.glued(rng, split, 0.5)} {self.glued(rng, split, 0.5)}"
