"""The pages about points: the list, the chart, the stored documents."""
