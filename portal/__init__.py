"""How people come in: pages (`portal.web`), REST (`portal.api`), command line (`portal.cli`), and what these share."""
