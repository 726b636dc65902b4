"""Everything that people look at: videos and sheets of clips, charts, the report page, the pictures of the demo."""
