"""Where files of a shard set come from: a folder, an object store, a web server, a command."""
