"""Hand-designed networks: plain modules, one file a family; `published.yaml` lists members with their exact figures."""
