"""Language service for editors: completion at the cursor."""
