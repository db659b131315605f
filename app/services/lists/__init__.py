"""What every list needs: pages, filters, rows."""
