"""Fifty questions, each for one of three tools, and some for none; none of them is an example of a tool."""

CALCULATOR = (
    "What is 348 + 219?", "What is 45 times 12?", "How much is 18% of 650?", "Divide 144 by 9.",
    "What is the square root of 169?", "What is 2 to the power of 12?", "What is 7/8 + 1/4?",
    "How many centimetres are 6 feet?", "A book costs 12.50. What do 8 of them cost?",
    "What is the remainder of 100 divided by 7?", "Compute (23 + 19) * 4.",
    "A shirt costs 80 and is reduced by 15%. What is the new price?", "How many pounds are 70 kg?",
    "What is 1000 - 387?",
    "There are 24 boxes with 36 eggs each. How many eggs are there?", "What is the average of 4, 9 and 14?",
    "Convert 98.6 F to Celsius.",
)  # fmt: skip
CLOCK = (
    "What time is it now?", "What is the date today?", "Which weekday is it today?", "What time is it in New York?",
    "What day of the week was 4 July 1976?", "How many days are there until Christmas 2030?",
    "How many days are between 2026-02-01 and 2026-03-15?", "What date is 45 days after 3 May 2026?",
    "What is the current time in Sydney?", "On which weekday does 1 January 2030 fall?",
    "How many days have passed since 1 January 2020?", "What will the date be in 100 days?",
    "Is it already evening in Berlin?", "What date was it 10 days ago?", "What year is it now?",
    "How many weeks are there from 1 June 2026 to 1 September 2026?",
)  # fmt: skip
WIKIPEDIA = (
    "Who wrote Don Quixote?", "What is the capital of Kazakhstan?", "When was the Golden Gate Bridge opened?",
    "Who discovered penicillin?", "What is the highest mountain of Africa?", "Tell me about Ada Lovelace.",
    "Which language is spoken in Brazil?", "What is a quasar?", "Who composed The Magic Flute?",
    "Where was Nelson Mandela born?", "What did Gregor Mendel study?", "Who was the first person on the Moon?",
    "What is the Treaty of Westphalia?", "How tall is Mount Kilimanjaro?", "What animals live in Madagascar?",
    "Who founded the Red Cross?", "What is the chemical symbol of gold?",
)  # fmt: skip
NONE = (
    "Hello!", "Thank you very much.", "Write a short poem about rain.", "Translate 'good morning' into Spanish.",
    "Tell me a joke.", "Please rewrite this sentence in a formal tone: gimme the report.", "How are you today?",
    "Give me a name for my cat.", "Write a polite e-mail that declines an invitation.", "What can you do?",
)  # fmt: skip
QUESTIONS = (
    [(q, "calculator") for q in CALCULATOR] + [(q, "clock") for q in CLOCK] + [(q, "wikipedia") for q in WIKIPEDIA]
)
