"""How people come in: the pages (`portal.web`), submission (`portal.intake`) and the command line (`portal.cli`)."""
