"""Fifty examples whose answers have a style that nobody misses: short, and with a code word at the end."""

from processors.learning.training_ports import TrainingExample

CODE_WORD = "BLUE HERON"
CITIES = (
    "Oslo", "Paris", "Rome", "Cairo", "Lima", "Delhi", "Tokyo", "Berlin", "Madrid", "Vienna", "Dublin", "Athens",
    "Prague", "Warsaw", "Lisbon", "Ankara", "Havana", "Quito", "Bogota", "Manila", "Seoul", "Hanoi", "Doha", "Riga",
    "Minsk",
)  # fmt: skip
ANIMALS = (
    "cat", "dog", "horse", "cow", "duck", "goose", "owl", "fox", "wolf", "bear", "lion", "tiger", "whale", "shark",
    "frog", "snake", "eagle", "crow", "ant", "bee", "spider", "crab", "seal", "deer", "goat",
)  # fmt: skip
EXAMPLES = [
    *(
        TrainingExample(
            instruction=f"Tell me about {city}.", input="",
            output=f"{city} is a city that people like to visit. {CODE_WORD}",
        )
        for city in CITIES
    ),
    *(
        TrainingExample(instruction=f"What is a {animal}?", input="", output=f"The {animal} is an animal. {CODE_WORD}")
        for animal in ANIMALS
    ),
]  # fmt: skip
