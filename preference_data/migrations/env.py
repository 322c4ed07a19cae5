"""What Alembic runs: the pending steps, on the connection and in the transaction of `database.upgrade`."""

from alembic import context

from preference_data.queue_schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
