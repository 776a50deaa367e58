"""Pure pydantic models: what goes in and out of the facade. The OpenAPI document is made from these."""
