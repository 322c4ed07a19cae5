"""What people said: records, store, importers, exporters, frozen dataset versions. No torch."""
