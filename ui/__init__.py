"""What people see: the annotation page. It meets the trainer in the database alone and loads no torch."""
