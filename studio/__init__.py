"""The studio: sliders in a browser. The session knows nothing of pages; ``latentedit.studio.web``
shows it."""
