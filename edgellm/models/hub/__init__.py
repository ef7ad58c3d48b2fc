"""The Hugging Face Hub: repositories, files, downloads and the local cache."""
