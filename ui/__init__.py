"""What people see: the annotation page and the leads' page. They meet the trainer in the database and load no torch."""

import os

# Gradio reads it when it is imported, and would otherwise ask a host outside for its newest version.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
