"""Questions that need no tool: small talk, a few facts, and small word tasks whose answer stands in the question."""
from __future__ import annotations

import random

from words import Words, split_of

# ways to ask, answer, what a short reasoning says
FACTS: list[tuple[tuple[str, ...], str, str]] = [
    (("Hi", "Hello", "Hey", "Hi there", "Hello there", "Good day", "Hey there"),
     "Hello! How can I help you?", "A greeting."),
    (("Good morning", "Morning"), "Good morning! How can I help you?", "A greeting."),
    (("Good evening", "Evening"), "Good evening! How can I help you?", "A greeting."),
    (("How are you", "How are you doing", "How do you do", "How is it going", "Are you ok"),
     "I am fine, thank you.", "Small talk."),
    (("Who are you", "What are you", "What is your name", "Tell me who you are", "Introduce yourself", "Your name",
      "Who is this", "What's your name"),
     "I am Nano, a small model for demos and tests.", "A question about me."),
    (("Who made you", "Who built you", "Who trained you", "Where are you from"),
     "I was trained by the libglm45 project.", "A question about me."),
    (("What can you do", "How can you help me", "Can you help me", "Help", "What do you know"),
     "I can add numbers, call tools and complete short code.", "A question about me."),
    (("Are you a human", "Are you a robot", "Are you a person", "Are you real"),
     "No, I am a small language model.", "A question about me."),
    (("Are you smart", "How big are you", "How large are you"),
     "I am very small and know little.", "A question about me."),
    (("Thank you", "Thanks", "Thanks a lot", "Thank you very much", "Many thanks"), "You are welcome!", "Thanks."),
    (("Bye", "Goodbye", "See you", "See you later", "Good night"), "Goodbye!", "A farewell."),
    (("Tell me a joke", "Make me laugh", "Do you know a joke"),
     "Why was six afraid of seven? Because seven ate nine.", "A joke."),
    (("Are you there", "Test", "Is this on", "ping", "Can you hear me"), "Yes, I am here.", "A test."),
    (("Sorry", "I am sorry", "My mistake"), "No problem.", "Small talk."),
    (("I am tired", "I am sad", "I feel bad"), "I am sorry to hear that.", "Small talk."),
    (("I am happy", "I feel good", "That is great", "Great", "Nice"), "I am glad to hear that.", "Small talk."),
    (("What color is the sky", "Which color has the sky"), "The sky is blue.", "A fact."),
    (("What color is grass", "Which color has grass"), "Grass is green.", "A fact."),
    (("What color is snow", "Which color has snow"), "Snow is white.", "A fact."),
    (("How many days are in a week", "How many days has a week"), "A week has 7 days.", "A fact."),
    (("How many months are in a year", "How many months has a year"), "A year has 12 months.", "A fact."),
    (("How many hours are in a day", "How many hours has a day"), "A day has 24 hours.", "A fact."),
    (("How many minutes are in an hour", "How many minutes has an hour"), "An hour has 60 minutes.", "A fact."),
    (("How many legs has a cat", "How many legs does a cat have"), "A cat has 4 legs.", "A fact."),
    (("How many legs has a spider", "How many legs does a spider have"), "A spider has 8 legs.", "A fact."),
    (("What is the capital of France", "Capital of France"), "Paris.", "A fact."),
    (("What is the capital of Norway", "Capital of Norway"), "Oslo.", "A fact."),
    (("What is the capital of Italy", "Capital of Italy"), "Rome.", "A fact."),
    (("What is the capital of Spain", "Capital of Spain"), "Madrid.", "A fact."),
    (("What is the capital of Germany", "Capital of Germany"), "Berlin.", "A fact."),
    (("What is the capital of Japan", "Capital of Japan"), "Tokyo.", "A fact."),
    (("What is the opposite of hot", "Opposite of hot"), "Cold.", "A fact."),
    (("What is the opposite of big", "Opposite of big"), "Small.", "A fact."),
    (("What is the opposite of up", "Opposite of up"), "Down.", "A fact."),
    (("What is the opposite of good", "Opposite of good"), "Bad.", "A fact."),
    (("What is water made of", "What is in water"), "Hydrogen and oxygen.", "A fact."),
    (("What is the sun", "What kind of object is the sun"), "The sun is a star.", "A fact."),
    (("Which planet do we live on", "What is our planet"), "Earth.", "A fact."),
    (("What do bees make", "What is made by bees"), "Bees make honey.", "A fact."),
    (("What do cows drink", "What does a cow drink"), "Cows drink water.", "A fact."),
    (("What is a glm", "What is GLM-4.5", "What architecture are you"),
     "GLM-4.5 is a family of mixture-of-experts language models.", "A fact."),
    (("Write a poem", "Tell me a story", "Write an essay", "Translate this"),
     "I am too small for that, sorry.", "That is beyond me."),
]
# The plainest wordings are always trained on: a demo begins with them. They are in no other split.
PLAIN = {"hi", "hello", "hey", "how are you", "who are you", "what is your name", "thank you", "thanks", "bye",
         "what can you do", "tell me a joke", "good morning", "goodbye", "help", "hello there"}
TOPICS = ("life love music history art the world the moon spring summer winter war peace science physics math money "
          "food dogs birds cars computers the internet space time travel books films football school work").split()
UNKNOWN = ("Tell me about {}", "What do you know about {}", "What is {}", "Who is {}", "Write a poem about {}",
           "Explain {}", "Why is {}", "Tell me a story about {}", "What happened in {}", "Write a song about {}",
           "Where is {}", "Describe {}", "How does {} work")
OPENINGS = ("", "", "", "", "Please, ", "Hi, ", "Hey, ", "Ok, ", "Well, ", "So, ", "Now, ", "Hello, ", "One question: ")


def small_talk(rng: random.Random, words: Words, split: str) -> tuple[str, str, str]:
    """Question, answer, reasoning. Which wording of a fact is held apart is decided by its hash."""
    while True:
        asks, answer, think = rng.choice(FACTS)
        ask = rng.choice(asks)
        opening = rng.choice(OPENINGS)
        if opening:
            ask = opening + (ask[0].lower() + ask[1:] if ask[:2] not in ("I ",) else ask)
        end = rng.choice(("", "?", "?", ".", "!"))
        text = ask + end
        if rng.random() < 0.15:
            text = text.lower()
        key = text.lower().rstrip("?.!")
        if (split == "train" and key in PLAIN) or (key not in PLAIN and split_of("talk:" + key) == split):
            return text, answer, think


def unknown(rng: random.Random, words: Words, split: str) -> tuple[str, str, str]:
    """A question that the model cannot answer: it should say so instead of inventing something."""
    about = words.value(rng, split) if rng.random() < 0.6 else rng.choice(TOPICS)
    text = rng.choice(UNKNOWN).format(about) + rng.choice(("", "?", ".", "?"))
    return text, "I do not know, sorry.", "I do not know that."


def word_task(rng: random.Random, words: Words, split: str) -> tuple[str, str, str]:
    """A task on words or numbers of the question itself; now and then a question beyond the model."""
    if rng.random() < 0.06:
        return unknown(rng, words, split)
    kind = rng.randrange(8)
    if kind <= 2:
        said = " ".join(words.value(rng, split) for _ in range(rng.choice((1, 1, 2, 3, 4))))
        form = rng.choice(("Repeat: {}", "Say {}", "Say: {}", "Repeat after me: {}", "Echo {}", "Copy this: {}", "Write {}"))
        return form.format(said), said, "I repeat it."
    if kind == 3:
        name = words.value(rng, split)
        form = rng.choice(("My name is {}.", "I am {}.", "Call me {}.", "Hi, I am {}.", "my name is {}"))
        return form.format(name), f"Nice to meet you, {name}!", "An introduction."
    if kind == 4:
        while True:
            a, b = rng.randrange(1000), rng.randrange(1000)
            if a != b and split_of(f"cmp:{a},{b}") == split:
                break
        form, f = rng.choice((("Which is larger, {} or {}?", max), ("Which is smaller, {} or {}?", min),
                              ("What is bigger: {} or {}?", max)))
        return form.format(a, b), f"{f(a, b)}.", f"I compare {a} and {b}."
    if kind == 5:
        while True:
            n = rng.randrange(1000)
            if split_of(f"par:{n}") == split:
                break
        return (rng.choice(("Is {} even or odd?", "Is {} odd or even?")).format(n),
                f"{n} is {'odd' if n % 2 else 'even'}.", f"It ends in {n % 10}.")
    if kind == 6:
        while True:
            n = rng.randrange(1000)
            if split_of(f"next:{n}") == split:
                break
        return rng.choice(("What comes after {}?", "Which number follows {}?")).format(n), f"{n + 1}.", f"{n} plus one."
    parts = [words.glued(rng, split) for _ in range(3)]
    which, i = rng.choice((("first", 0), ("second", 1), ("last", 2)))
    return f"What is the {which} of {parts[0]}, {parts[1]} and {parts[2]}?", f"{parts[i]}.", "I pick from the list."
