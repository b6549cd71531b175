"""Turn the exports of tracing tools into rows.

FILE ──► calls     `Call`: messages, answer, tools; `Score`: feedback of people or evaluators
     ──► messages  one conversation from the conventions of each tool
     ──► rows      one row per conversation; ratings or pairs from the feedback
"""
