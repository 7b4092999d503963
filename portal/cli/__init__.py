"""The `bgbatch` command. Each file here holds the commands of one subject; `app` puts them together."""
