"""Records as Parquet files, named by topic, partition and first offset, so that each is written exactly."""
