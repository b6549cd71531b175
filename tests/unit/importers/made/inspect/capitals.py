from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import choice, includes, match
from inspect_ai.solver import generate, multiple_choice, system_message

CAP = {
    "France": "Paris",
    "Japan": "Tokyo",
    "Peru": "Lima",
    "Kenya": "Nairobi",
    "Norway": "Oslo",
    "Chile": "Santiago",
    "Egypt": "Cairo",
    "Spain": "Madrid",
}


@task
def capitals() -> Task:
    return Task(
        dataset=[
            Sample(
                id=i, input=f"What is the capital of {c}?", target=t, metadata={"letters": len(c)}
            )
            for i, (c, t) in enumerate(CAP.items(), 1)
        ],
        solver=[system_message("Answer with the name of the city alone."), generate()],
        scorer=[includes(), match()],
    )


@task
def choices() -> Task:
    return Task(
        dataset=[
            Sample(input=f"What is the capital of {c}?", choices=[t, "Berlin", "Rome"], target="A")
            for c, t in CAP.items()
        ],
        solver=multiple_choice(),
        scorer=choice(),
    )
