"""Takes clicks over HTTP and puts them into Kafka. This folder, zipped with its two packages, is the Lambda."""
