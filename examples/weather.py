"""A tool for the chat: reads {"city": ...} and prints its weather, made up but the same every time."""
import json
import sys

city = str(json.load(sys.stdin)["city"])
seed = sum(city.encode())
print(f"{('sunny', 'cloudy', 'rainy', 'windy')[seed % 4]}")
